"""The operations of the dialect, by stage."""
