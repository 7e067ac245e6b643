"""What holds for every provider of Dapr's API."""
