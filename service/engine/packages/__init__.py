"""Packages as they are served: found, loaded, planned for, measured, tried, and read anew when they change."""
