// Eight schools (Rubin 1981) as a Stan program: the posterior of model.py beside it. This needs the extra `stan`.
data {
  vector[8] y;
  vector<lower=0>[8] sigma;
}
parameters {
  real mu;
  real<lower=0> tau;
  vector[8] z;
}
transformed parameters {
  vector[8] theta = mu + tau * z;
}
model {
  mu ~ normal(0, 5);
  tau ~ cauchy(0, 5);
  z ~ std_normal();
  y ~ normal(theta, sigma);
}
generated quantities {
  vector[8] log_lik;
  array[8] real y_rep = normal_rng(theta, sigma);
  for (j in 1:8) log_lik[j] = normal_lpdf(y[j] | theta[j], sigma[j]);
}
