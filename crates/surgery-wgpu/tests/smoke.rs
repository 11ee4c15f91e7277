//! A loss and its gradient on this machine's first GPU, or the software adapter, against the CPU backend.

use surgery_core::Result;
use surgery_core::burn::tensor::backend::{AutodiffBackend, BackendTypes};
use surgery_core::burn::tensor::{FloatDType, Tensor, TensorData};
use surgery_core::kernels::{HeadKernels, ModelKernels};
use surgery_core::platform::Platform;
use surgery_ndarray::Cpu;
use surgery_wgpu::Wgpu;

type Device<P> = <<P as Platform>::Infer as BackendTypes>::Device;

/// Σ NLL of normed hidden states, and its gradient with respect to the hidden states and the head.
fn measure<P: Platform>(device: &Device<P>) -> Vec<f32> {
    let values = |count: usize| -> Vec<f32> { (0..count).map(|i| (i as f32 * 0.7).sin()).collect() };
    let hidden = Tensor::<P::Train, 3>::from_data(TensorData::new(values(5 * 8), [1, 5, 8]), device);
    let head = Tensor::<P::Train, 2>::from_data(TensorData::new(values(16 * 8), [16, 8]), device);
    let (hidden, head) = (hidden.require_grad(), head.require_grad());
    let normed = <P::Kernels as ModelKernels<P::Train>>::rms_norm(
        hidden.clone(),
        Tensor::ones([8], device),
        1e-5,
        FloatDType::F32,
    );
    let loss =
        <P::Kernels as HeadKernels<P::Train>>::nll(normed.reshape([5, 8]), head.clone(), &[3, 0, 15, 7, 7]);
    let loss = loss.sum();
    let gradients = loss.backward();
    let mut measured = vec![loss.into_scalar_f32()];
    measured.extend(read::<P::Train, 3>(hidden.grad(&gradients)));
    measured.extend(read::<P::Train, 2>(head.grad(&gradients)));
    measured
}

fn read<B: AutodiffBackend, const D: usize>(gradient: Option<Tensor<B::InnerBackend, D>>) -> Vec<f32> {
    gradient.expect("a gradient").into_data().convert::<f32>().to_vec().expect("converted to f32")
}

trait IntoScalar {
    fn into_scalar_f32(self) -> f32;
}

impl<B: AutodiffBackend> IntoScalar for Tensor<B, 1> {
    fn into_scalar_f32(self) -> f32 {
        self.into_data().convert::<f32>().to_vec().expect("converted to f32")[0]
    }
}

#[test]
fn results_equal_those_of_the_cpu() -> Result<()> {
    let device = match Wgpu::device(0).or_else(|error| {
        eprintln!("{error}");
        Wgpu::software()
    }) {
        Ok(device) => device,
        Err(error) => {
            eprintln!("skipped: {error}");
            return Ok(());
        }
    };
    let (expected, measured) = (measure::<Cpu>(&Cpu::device(0)?), measure::<Wgpu>(&device));
    assert_eq!(expected.len(), measured.len());
    for (expected, measured) in expected.into_iter().zip(measured) {
        assert!((expected - measured).abs() < 1e-4, "{measured}, but the CPU computes {expected}");
    }
    Ok(())
}

#[test]
fn a_missing_device_is_an_error() {
    println!("{}", Wgpu::describe().join("\n"));
    let error = Wgpu::device(1000).expect_err("no machine has so many");
    println!("{error}");
}
