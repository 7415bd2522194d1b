"""Bytes of a trace file -> events: packed or not, whole or broken, in pieces. `file.py` is the face.

May import: the ground.
"""
