"""Parts of Stable Diffusion: UNet, VAE, text encoder, noise schedule, LoRA, signal leak, and the packaged tiny model.

A folder in diffusers' layout (`woundray.weights`) -> loaded parts -> trained by `woundray.training`.
"""
