"""Front ends: programs written in Python, traced into the dialect."""
