"""How runs are carried out: one after the other, side by side in processes, as one ensemble, or shared by torchrun."""
