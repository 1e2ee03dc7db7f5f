"""The `stagewire` command: the API's calls as verbs, adding no rules of its own."""
