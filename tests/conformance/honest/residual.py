import numpy as np

from tests.conformance.honest import honest, put, tiles


@honest("residual_forward", "one call")
def forward(out_NC, a_NC, b_NC):
    np.add(a_NC, b_NC, out=out_NC)


@honest("residual_forward", "row after row, in double")
def row_by_row(out_NC, a_NC, b_NC):
    for n in range(len(a_NC)):
        out_NC[n] = b_NC[n].astype(np.float64) + a_NC[n]


@honest("residual_backward", "two copies")
def backward(da_NC, db_NC, dout_NC):
    put(da_NC, dout_NC)
    put(db_NC, dout_NC)


@honest("residual_backward", "tiles of 8 columns")
def by_tiles(da_NC, db_NC, dout_NC):
    for columns in tiles(dout_NC.shape[1], 8):
        for gradient in (da_NC, db_NC):
            if gradient is not None:
                gradient[:, columns] = dout_NC[:, columns]
