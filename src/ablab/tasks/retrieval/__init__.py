"""Multimodal retrieval: queries and passages of text and image, fused from tapped layers of two towers."""
