"""The mathematics of the methods: pure functions on tensors."""
