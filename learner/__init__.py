"""What learns: networks, quantum surrogate, TD3, parameter versions. Never steps an environment or opens a socket."""
