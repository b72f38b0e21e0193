"""Ray: the cluster (`ray.init`), its nodes, the TorchTrainer of one run and its workers.

settings -> connection -> nodes -> torch_trainer -> train_worker -> `woundray.training.loop`.
"""
