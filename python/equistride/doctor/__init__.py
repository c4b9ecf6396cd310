"""What is there on this machine, what fits, and what to do about the rest.

Standard library alone in this process: torch and the engines are imported in processes of their own (``probe_*.py``), which may
fail or crash. So it works where parts are broken, ``python -m equistride.doctor`` also where the command line is.
"""
