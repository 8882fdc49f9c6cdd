"""A person's own data: arrays, tables of texts or tokens, folders of images. No code, no network, no pickles."""

# Task -> what it reads; light, because the command line lists it without loading a task.
OWN = {
    "arrays": "an .npz or .safetensors file",
    "table": "a .csv, .tsv, .parquet or .arrow file, or a folder that the library datasets saved",
    "images": "a folder with a folder of image files for each class, or a table with a column of images",
}
