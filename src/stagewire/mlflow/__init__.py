"""MLflow's registry API in our terms: its fields, checks, texts and answers, and no rules.

The gateway serves it over HTTP, and `store` is a plugin that runs it where MLflow runs.
"""
