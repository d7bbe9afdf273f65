//! How each framework spells a transposed convolution: one file per framework.
