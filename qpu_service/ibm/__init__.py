"""IBM hardware as a backend: devices, jobs that are paid once, and what to do when one fails."""
