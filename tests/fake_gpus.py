"""A script that answers as nvidia-smi does on a machine with two GPUs."""

SMI = """#!/bin/sh
echo "0, GPU-aaaa-1, NVIDIA H100 80GB HBM3, 81559, 80000"
echo "1, GPU-bbbb-2, NVIDIA T4, 15360, [N/A]"
"""
