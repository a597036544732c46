"""The coin: a Skycoin-compatible chain, its store, its network and its wallets; an app on a node."""
