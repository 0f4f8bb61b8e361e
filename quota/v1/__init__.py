"""The messages and stubs of `proto/quota/v1`, generated; `make proto` writes them anew."""
