"""Who calls, and what they may do: credentials become callers here, for every edge alike."""
