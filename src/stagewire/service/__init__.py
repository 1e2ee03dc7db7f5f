"""The rules: what each RPC means, as functions from a transaction and a request to an answer."""
