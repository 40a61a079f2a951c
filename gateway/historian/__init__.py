"""The historian: the time-series stores that people query. Derived from the ledger; may lag, may be down."""
