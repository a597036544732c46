"""How the Go node writes and reads what programs may compare: its JSON errors, quotes, durations, times."""
