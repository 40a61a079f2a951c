"""The whole chain as real processes on loopback: killed, restored, badly started, and counted afterwards."""
