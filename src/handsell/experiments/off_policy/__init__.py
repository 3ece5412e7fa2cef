"""Off-policy evaluation: what a candidate would have earned, estimated from slates that another policy showed.

Modules in order of the work: `logged_impressions` reads slates with propensities and outcomes, `requests_as_of`
rebuilds their requests, `probabilities` computes how likely a policy shows the logged items, `reward_model` predicts
rewards, `estimators`, `clipping`, `intervals` and `support` turn both into values, and `evaluation` ties them together.
"""
