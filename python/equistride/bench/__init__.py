"""Speed of models, propagators and kernels on this machine, against other programs and against the machine itself."""
