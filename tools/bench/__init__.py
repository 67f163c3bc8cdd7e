"""`moa-bench`: the programs of the library timed beside other software.

`docs/benchmarks.md` says what is counted, and what makes the comparison fair.
"""
