"""How every HTTP service is built: app factory, errors, auth, limits, health, metrics, logs."""
