"""What travels between server and clients: the only place that knows record keys, and where nothing is believed.

A request names the round and the clients the node answers for; the reply has a message of each of them:

    query.info    ->  fedmd: {protocol, run, exchange}
                  <-  fedmd: {protocol, clients: [int], wants_model: bool}
    train.stream  ->  fedmd: {protocol, run, session, round, clients: [int], batches, exchange, model_file, ...},
                      model: arrays (where there is no shared memory)
                  <-  fedmd: {protocol, round, clients: [int]}, batch.<client>: {images: uint8, labels: int64},
                      batch.<client>.<k>: likewise, of round + k for 0 < k < batches
    train.update  ->  likewise, with {proximal_mu, classes}
                  <-  fedmd: {protocol, round, clients: [int], examples: [int], seconds: [float]},
                      update.<client>: the trained model's floating-point tensors

`run` is the whole configuration as JSON. Truth about poison is no part of any message.
"""
