"""The folder that nnU-Net scans for trainers: every module in here is imported at each lookup, so there is one."""
