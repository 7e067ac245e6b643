"""What every service needs: serving, identity, Dapr, errors, telemetry, settings."""
