"""Experience: environments, the acting policy, rollouts, evaluation. Never learns, never imports Ray or Redis."""
