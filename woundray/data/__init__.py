"""Photographs: the user's files -> checked data set -> split by patient -> square views -> latent cache.

prepare | manifest | phase_folders -> dataset -> split -> image_source -> latent_cache.
`phantoms` draws wounds for demonstrations and tests.
"""
