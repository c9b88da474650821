"""The machine this runs on: devices, memory, temperatures, boards.

Imports nothing of the project but `errors`.
"""
