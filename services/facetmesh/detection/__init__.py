"""Object detection with each tenant's own models."""
