"""The contract: one file per op. The letters of the shapes are explained here, once.

B batch · T time · N rows, B*T · C channels · H heads · D head size · F hidden · I input features ·
O output features · S output features of a slice · R rank · V vocabulary, padded to a multiple of 128 ·
X maximum positions · P parameters, flat

A digit in a suffix is a literal extent: `qkv_BT3HD`, `lr_1`. The gradient of the loss in `x_NC` is
`dx_NC`. Outputs come first, then inputs, then settings; the caller gives every buffer, and the op
fills its outputs and returns nothing. Roles are explained in `harness.contract.roles`, and what an op
file holds in `harness.contract.op`.
"""
