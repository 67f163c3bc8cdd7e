"""What programs cost: bytes moved, operations, time."""
