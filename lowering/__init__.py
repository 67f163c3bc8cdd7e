"""From the operational normal form to upstream dialects, and their execution."""
