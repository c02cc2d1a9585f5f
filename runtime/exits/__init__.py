"""End an inference at an early exit: the state at an exit, the policies that decide there, and their files.

Seifeddine, chapter 3: at each exit the system stays, exits with the answer so far, or offloads the rest.
"""
