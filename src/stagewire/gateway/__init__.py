"""MLflow's REST API over the registry: an edge with its wire format and texts, and no rules."""
