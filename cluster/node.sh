# Environment of every node of a cluster that `ray up cluster/aws.yaml` or `ray up cluster/local.yaml` made.
# Sourced by the start commands of both files, by ~/.bashrc on the nodes, and so by everything that Ray starts there.
export HDQNN_HOME="$HOME/hdqnn-rl"
export PATH="$HDQNN_HOME/.venv/bin:$PATH"

# What was paid on IBM hardware is fetched and kept with the runs.
export QPU_JOURNAL_DIR="$HDQNN_HOME/runs/ibm-journal"

# Whoever reaches an open Ray port runs code. The token is in ~/.ray/auth_token (mode 0600), made on the head by `ray up`.
export RAY_AUTH_MODE=token

# Stopping a run sends SIGTERM to the learner, which then writes a checkpoint; Ray would kill it after 3 seconds.
export RAY_JOB_STOP_WAIT_TIME_S=120

# Ray's launcher exports OMP_NUM_THREADS=1 and PYTHONWARNINGS=ignore to every command that it runs on a node.
unset OMP_NUM_THREADS PYTHONWARNINGS

export RAY_USAGE_STATS_ENABLED=0
ulimit -n 65536 2>/dev/null || true

# Secrets (QISKIT_IBM_TOKEN, REDIS_URL, ...) that this node alone may have; see docs/runbook.md.
if [ -f "$HOME/.hdqnn-rl.env" ]; then
  set -a
  . "$HOME/.hdqnn-rl.env"
  set +a
fi
