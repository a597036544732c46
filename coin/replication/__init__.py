"""How nodes of one chain keep in step: messages, peers, blocks and loose transactions; a publisher."""
