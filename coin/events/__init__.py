"""What happens in a chain, told as it happens and again from any height: nobody needs to ask for deposits."""
