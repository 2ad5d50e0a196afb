"""For tests of your own: a backend without weights, a model behind it, and what every backend promises."""
