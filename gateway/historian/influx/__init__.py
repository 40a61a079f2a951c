"""InfluxDB and what speaks its protocol."""
