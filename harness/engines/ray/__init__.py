"""The engine `ray`: any other engine on several GPUs, machines or both, by way of a Ray cluster (https://ray.io).

Each replica is an actor that loads the model once. Requests go out in small messages and completions come back as they
finish; the process that the user started alone parses, scores and records, so that each sample is recorded exactly
once, whatever becomes of replicas, nodes and messages.
"""
