"""Learn when an inference may end early: exits for a trained network, its recorded answers, and policies fitted to them.

`attach` gives a network exits, `record` runs it on labelled inputs, and the policies are fitted to what was recorded:
`thresholds`, `guarantee` (thresholds with a promise), `optimum` (backward induction) and `dqn` (reinforcement learning).
The topic is Seifeddine's report, "AI on the Edge", chapters 3 and 4. scikit-learn, gymnasium and torch are imported by the
functions that need them alone.
"""
