"""The gateway: MQTT to ledger to historian. `gateway.core` never waits for anything but its own disk."""
