"""Passes from `moa` to `moa`: normal forms, fusion, lifting, checks and costs."""
