//! Verifies the token that an AWS Application Load Balancer signs, and only then names the user.
